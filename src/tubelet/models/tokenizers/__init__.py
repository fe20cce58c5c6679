"""Networks that give ids or codes (dVAE now; VQ, FSQ, importance scorer next)."""
