//! The contract between server and device.
//!
//! What a platform engineer commits reaches a machine as bytes in the shapes of this crate, and both sides compile against
//! this one definition. Nothing here reads a file, a socket or a clock: callers pass bytes and times in.
//!
//! | module | holds |
//! |---|---|
//! | [`manifest`] | the whole desired state of a machine |
//! | [`leaf`], [`tree`] | what binds a manifest to a device, and the RFC 6962 tree over all of them |
//! | [`release`] | the one signed statement over all devices of a commit |
//! | [`envelope`], [`crypto`] | DSSE over Ed25519: the bytes that were signed are the bytes that are parsed |
//! | [`root`] | the trust root: which keys may sign, versioned and chained |
//! | [`verify`] | the rules a device enforces on an offer |
//! | [`wire`] | request and answer bodies of the edge API, the join file |
//! | [`health`] | the checks that a device makes of its containers |
//! | [`name`], [`path`], [`digest`] | checked names, device paths, content digests |
//! | [`policy`] | where on a device a release may have files |
//! | [`owner`] | the object that a file, a unit or an image belongs to |
//! | [`clock`] | when a machine's clock is believed |
//! | [`code`] | every stable error code, with what to do |

pub mod clock;
pub mod code;
pub mod crypto;
pub mod digest;
pub mod envelope;
pub mod health;
pub mod leaf;
pub mod manifest;
pub mod name;
pub mod owner;
pub mod path;
pub mod policy;
pub mod release;
pub mod root;
pub mod tree;
pub mod verify;
pub mod wire;

pub use code::{Code, Problem};
pub use digest::Digest;
pub use leaf::Leaf;
pub use manifest::Manifest;
pub use name::{DeviceName, FleetName};
pub use owner::Owner;
pub use path::DevicePath;
pub use release::Release;
pub use root::TrustRoot;
