"""What a build leaves for people and machines."""
