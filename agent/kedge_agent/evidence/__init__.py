"""What two engines on the same live frames prove, and how sure of it one may be."""
