//! The whole path on virtual devices with real systemd, Podman and Quadlet: `cargo test --test lab`, as root.
//!
//! Every test has devices of its own and cleans up after itself; what went wrong stays readable in the panic's message.

mod clocks;
mod conformance;
mod device;
mod drift;
mod figures;
mod folders;
mod guard;
mod health;
mod identity;
mod joining;
mod lifecycle;
mod mitm;
mod moves;
mod names;
mod outage;
mod packages;
mod podman;
mod power;
mod proxy;
mod quadlet;
mod rendered;
mod restored;
mod same;
mod site;
mod space;
mod tls;
mod trouble;
