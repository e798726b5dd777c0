"""What several servers over one database share: who leads, and what has changed."""
