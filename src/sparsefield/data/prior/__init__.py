"""The prior of the universal interpolator: scattered measurements of fields of many kinds."""
