//! Many devices at once, and what they cost.
//!
//! | module | is |
//! |---|---|
//! | [`site`] | a Git repository with a fleet of any size, and `flotta serve` over it, in a process of its own |
//! | [`device`] | a device: the agent's own identity, link, verification, ledger and reports; no machine behind it |
//! | [`follow`] | a fleet that joins and follows commits while the server is killed: what is true of every device is checked |
//! | [`measure`] | what joins, polls, connections, reports and held connections cost the server; what a render costs |
//! | [`process`] | what a process uses, as the kernel says it |

pub mod device;
pub mod follow;
pub mod measure;
pub mod process;
pub mod site;
