"""Values: levels of the hierarchy, entities, paths, versions."""
