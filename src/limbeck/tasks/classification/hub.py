"""What the Hugging Face hub is told of classifiers."""

from limbeck.tasks.kind import OnHub

HUB = OnHub(
    "image-classification",
    {
        "timm": 'import timm\n\nmodel = timm.create_model("{name}", num_classes={classes})',
        "torchvision": 'from torchvision.models import get_model\n\nmodel = get_model("{name}", num_classes={classes})',
    },
)
