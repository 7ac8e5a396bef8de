//! What goes from one image of clusterd to the next when it is upgraded in place (execve(2)), in the words that all rooms share.
//!
//! Each room writes down what it has, in a `snapshot` file of its own, and begins with that in the new image. Here is how a
//! descriptor, a point in time and bytes are written down, and how a task is asked to stand still meanwhile. What an
//! upgrade consists of is `primary::upgrade`'s.
//!
//! A snapshot is JSON. What others have sent and may be of any form, such as a message of a worker, is written down as a string:
//! descriptors are found by their shape ([`descriptors()`]).

mod descriptors;
mod moment;
mod raw;
mod standstill;
mod steps;
mod still;

pub(crate) use self::descriptors::descriptors;
pub(crate) use self::moment::Moment;
pub(crate) use self::raw::Raw;
pub(crate) use self::standstill::{Frozen, StandStill, stand_still};
pub(crate) use self::steps::{NoSteps, Step, Steps};
pub(crate) use self::still::{NotCarried, Still};
pub(crate) use crate::sys::carried::{CarriedFd, CarriedFds};

/// No count gets further than this: what JSON can hold exactly for every reader.
pub(crate) const LAST_COUNT: u64 = 1 << 53;

#[cfg(test)]
pub(crate) mod testing {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::{CarriedFds, descriptors};

    /// This part of a snapshot with one of everything that there can be in it, where these `places` hold something else.
    pub(crate) fn everything<T: DeserializeOwned>(part: &str, places: &[(&str, Value)]) -> T {
        let whole = include_str!("../../tests/golden/upgrade-1.json");
        let mut whole: Value = serde_json::from_str(whole).expect("it is JSON");
        for (place, value) in places {
            *whole[part].pointer_mut(place).expect("there is such a place") = value.clone();
        }
        serde_json::from_value(whole[part].take()).expect("it can be read")
    }

    /// What the next image would read, with copies of the descriptors, so that whoever has them can be dropped.
    pub(crate) fn carried<T: Serialize + DeserializeOwned>(snapshot: &T) -> (T, CarriedFds) {
        let written = serde_json::to_vec(snapshot).expect("it can be written down");
        let fds = CarriedFds::copies(&descriptors(&written).expect("it is JSON"));
        (serde_json::from_slice(&written).expect("it can be read"), fds)
    }
}
