"""The bundled tiny world: sticker boards, their prompts and detector, and a tiny real model."""
