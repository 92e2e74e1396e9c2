"""Networks that come with the package."""

from workloads.zoo.frontend import ZooFrontend

__all__ = ["ZooFrontend"]
