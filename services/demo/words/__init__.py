"""The bundled world of words: small signs in real fonts, which a real OCR engine reads."""
