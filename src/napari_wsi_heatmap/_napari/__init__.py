"""The only code that knows napari, Qt and magicgui; nothing else imports it at import time."""
