"""The bundled tiny worlds: sticker boards here, words beside them, and their tiny real models."""
