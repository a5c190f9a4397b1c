//! Renders the objects of a source to one manifest per device: a pure function of the commit.
//!
//! ```text
//! YAML -> decode -> check -> input -> select -> merge -> compile -> bundle
//!  objects of a cluster ->
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`decode`] | YAML and objects of a cluster to values that know their places |
//! | [`check`] | schema, names, references of each object |
//! | [`input`] | the content of a source, decoded and checked |
//! | [`select`] | which sets and workloads a device has |
//! | [`merge`] | merges the settings of sets and devices, field by field, with origins |
//! | [`fleet`] | devices, sets and workloads, and which of them belong together |
//! | [`settings`] | merged settings to the settings of the agent |
//! | [`quadlet`] | users' own Quadlet files, read and checked |
//! | [`compile`] | a workload to Quadlet files |
//! | [`bundle`] | files, units and images to a manifest; leaves of the next release |
//! | [`render`] | all steps together |
//! | [`finding`] | what is wrong, what that concerns, and what to do |
//! | [`place`] | places in files and in objects of a cluster |
//! | [`pointer`] | JSON pointers into documents |

pub mod bundle;
pub mod check;
pub mod compile;
pub mod decode;
pub mod finding;
pub mod fleet;
pub mod input;
pub mod merge;
pub mod place;
pub mod pointer;
pub mod quadlet;
pub mod render;
pub mod select;
pub mod settings;

pub use bundle::leaves;
pub use check::Batch;
pub use decode::Document;
pub use finding::{Finding, Scope, Severity};
pub use fleet::{Fleet, InventoryDevice};
pub use flotta_api::GROUP;
pub use input::Input;
pub use place::{ObjectRef, Place};
pub use render::{Counts, Guard, Options, Rendered, RenderedDevice, render};
