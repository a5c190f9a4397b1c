//! The control plane: turns commits into releases that devices are offered, and reports into the status that people see.
//!
//! ```text
//! source -> publish -> depot, index -> edge -> devices
//!                                 admin <- status <- store <- reports
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::similar_names,
        reason = "tests"
    )
)]

pub mod admin;
pub mod backup;
pub mod blobs;
pub mod check;
pub mod clock;
pub mod depot;
pub mod edge;
pub mod enrol;
pub mod failures;
pub mod hooks;
pub mod index;
pub mod keys;
pub mod publish;
mod rate;
mod refusals;
pub mod review;
pub mod serve;
pub mod server_state;
pub mod source;
pub mod status;
pub mod store;
mod text;

#[cfg(test)]
mod fixture;
