"""Everything that is drawn: pages, tables, figures."""
