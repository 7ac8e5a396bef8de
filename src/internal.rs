//! What benches, tests, fuzz targets and xtask reach of the command's inside, with the feature `internal`.
//!
//! It is no interface: it changes with any version.

/// See `crate::cli`.
pub mod cli {
    pub use crate::cli::arguments::everything;
}

/// See `crate::ids`.
pub mod ids {
    pub use crate::ids::Slot;
}

/// See `crate::logs`.
pub mod logs {
    pub use crate::logs::{Output, messages};
}

/// See `crate::policy`.
pub mod policy {
    pub use crate::ids::Slot;
    pub use crate::policy::{Availability, Balancer, Choice, Seat};
}

/// See `crate::control`.
pub mod control {
    pub use crate::control::api::openapi;
}

/// See `crate::private`.
pub mod private {
    pub use crate::private::exposition::{Exposition, Format, LeftOut, Reason};
}

/// See `crate::properties`.
pub mod properties {
    pub use crate::properties::{
        api_body, attach_wire, env_file, home_state, import, listen_fds, settings_file, snapshot,
    };
}

/// See `crate::protocol`.
pub mod protocol {
    pub use crate::protocol::{name_address, node, wire};
}

/// See `crate::settings`.
pub mod settings {
    pub use crate::settings::{LogFormat, reference, schema};
}

/// See `crate::sys`.
pub mod sys {
    pub use crate::sys::seqpacket;
}
