//! Everything that needs a cluster.
fn main() {}
