//! Simulates many devices, and measures what they cost.
//!
//! | module | is |
//! |---|---|
//! | [`site`] | a Git repository with a fleet of any size, and `flotta serve` over it, in a process of its own |
//! | [`device`] | a simulated device: the agent's own identity, link, verification, ledger and reports, without a machine |
//! | [`follow`] | a fleet that joins and follows commits while the server is killed; every device is checked |
//! | [`measure`] | the cost of joins, polls, connections, reports and held connections, and of a render |
//! | [`process`] | the resources that a process uses, from the kernel |

pub mod device;
pub mod follow;
pub mod measure;
pub mod process;
pub mod site;
