"""Elements of a page that keyboards and screen readers can use: sliders, tabs, buttons, texts, downloads."""
