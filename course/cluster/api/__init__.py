"""The calls of the API, one module for each area; `course.cluster.route.registry` finds whatever is added here."""
