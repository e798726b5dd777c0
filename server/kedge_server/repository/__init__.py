"""The image repository: TUF metadata whose offline roles the server can check but not sign."""
