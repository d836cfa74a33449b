from .engine import Callback, Engine
from .modules import BitModule, PretrainModule
from .network import BitTransformerLM
