//! Quantities: exact amounts of resources, such as `100m` or `1Gi`.
