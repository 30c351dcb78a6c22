"""What a network is: the ViT skeleton, the derived network, baselines by name, and what they cost.

The derived network comes first: importing timm registers it, wherever among these modules timm is first needed.
"""

from dasvit.models import dasvit as dasvit
