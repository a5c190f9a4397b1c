//! From a tree of YAML to one manifest per device: a pure function of the commit.
//!
//! ```text
//! tree -> read (decode -> check) -> select -> merge -> compile -> bundle
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`tree`] | the files of a directory or a Git revision |
//! | [`read`] | what each file says: decoded, checked, remembered |
//! | [`decode`] | YAML to values that know where they stand |
//! | [`check`] | schema, names, references of each object |
//! | [`select`] | which sets and workloads a device has |
//! | [`merge`] | sets under devices, field by field, with origins |
//! | [`fleet`] | devices, sets and workloads, and what selects what: who wants to know, asks it |
//! | [`settings`] | what a merged spec says of the agent |
//! | [`compile`] | a workload to Quadlet files |
//! | [`bundle`] | files, units and images to a manifest; leaves of the next release |
//! | [`render`] | the way through all of them |
//! | [`finding`] | what is wrong, where, and what to do |

pub mod bundle;
pub mod check;
pub mod compile;
pub mod decode;
pub mod finding;
pub mod fleet;
pub mod merge;
pub mod read;
pub mod render;
pub mod select;
pub mod settings;
pub mod tree;

pub use bundle::leaves;
pub use finding::{Finding, Place, Severity};
pub use fleet::{Fleet, InventoryDevice};
pub use render::{Counts, Guard, Options, Rendered, RenderedDevice, Renderer, render};
pub use tree::{SourceFile, Tree};
