"""RTL of the neuromorphic core and its mesh, configured with the simulator's own tables."""

from accelerators.neuromorphic.rtl.core import NeuroCore
from accelerators.neuromorphic.rtl.cycles import step_cycles
from accelerators.neuromorphic.rtl.mesh import Mesh
from accelerators.neuromorphic.rtl.shape import CoreImage, CoreShape, rtl_violations

__all__ = ["CoreImage", "CoreShape", "Mesh", "NeuroCore", "rtl_violations", "step_cycles"]
