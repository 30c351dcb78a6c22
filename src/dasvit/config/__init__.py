"""A recipe: its fields, how files and options become them, and which values work. Imports neither torch nor timm."""

# isort: skip_file
# Sorted, every name that is handed on would be a statement.
from dasvit.config.fields import (
    AlphaConfig as AlphaConfig,
    AugmentConfig as AugmentConfig,
    AutoFormerConfig as AutoFormerConfig,
    BetaDartsConfig as BetaDartsConfig,
    Config as Config,
    DartsPlusConfig as DartsPlusConfig,
    DataConfig as DataConfig,
    DeriveConfig as DeriveConfig,
    EvolutionConfig as EvolutionConfig,
    FairDartsConfig as FairDartsConfig,
    FairnessConfig as FairnessConfig,
    FinalsConfig as FinalsConfig,
    LatencyConfig as LatencyConfig,
    ModelConfig as ModelConfig,
    OptimConfig as OptimConfig,
    PcDartsConfig as PcDartsConfig,
    PDartsConfig as PDartsConfig,
    RandomConfig as RandomConfig,
    RuntimeConfig as RuntimeConfig,
    SearchConfig as SearchConfig,
    SpaceConfig as SpaceConfig,
    Stage as Stage,
    StagesConfig as StagesConfig,
    TokensConfig as TokensConfig,
    TrainConfig as TrainConfig,
)
