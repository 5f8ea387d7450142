"""The explorer around its components: page, tabs, toolbar, history, layers and the bench."""
