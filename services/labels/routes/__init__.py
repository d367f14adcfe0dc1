"""One file a resource: parse, authorise, call the domain function, answer."""
