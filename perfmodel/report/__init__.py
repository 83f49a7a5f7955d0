"""How is it shown?  Results as documents of tables, and the renderers that know formats and not subjects."""
