"""What the Hugging Face hub is told of detectors."""

from limbeck.tasks.kind import OnHub

HUB = OnHub("object-detection", {})  # those on backbones of timm are limbeck's
