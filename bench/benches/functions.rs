//! Functions that are called once for each device or file.
fn main() {}
