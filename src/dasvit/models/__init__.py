"""What a network is: the ViT skeleton, the derived network, baselines by name, and what they cost.

The networks of our own come first: importing timm registers them, wherever among these modules timm is first needed.
"""

from dasvit.models import autoformer as autoformer
from dasvit.models import dasvit as dasvit
from dasvit.models import distilled as distilled
from dasvit.models import scaled_down as scaled_down
from dasvit.models import subnet as subnet
from dasvit.models import vit_conv as vit_conv
from dasvit.models import vit_shift as vit_shift
