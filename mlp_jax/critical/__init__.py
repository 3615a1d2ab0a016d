"""Critical points of any function of any pytree: find them, and classify them."""
