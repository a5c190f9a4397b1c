//! The device side of Flotta: pulls the desired state, verifies it, records it, applies it and reports the actual state.
//!
//! It has two halves. One talks to the control plane: [`enrol`], [`identity`], [`pull`], [`report`], [`clock`]. The other changes the
//! machine: [`ledger`], [`observe`], [`plan`], [`apply`], [`converge`], [`health`] over a [`backend`]. [`run`] ties them together along the
//! edges that [`state_machine`] allows.

pub mod apply;
pub mod backend;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod converge;
mod durable;
pub mod enrol;
mod fault;
pub mod fetch;
pub mod hardware;
pub mod health;
pub mod identity;
pub mod ledger;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod pull;
pub mod report;
pub mod run;
pub mod state_machine;
pub mod status;
