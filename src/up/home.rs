//! The locks of the apps, as long as their primaries do not have them yet; and that nothing is left of them in the end.
//!
//! Where the home folder cannot be written there are none, and the apps run all the same.

use crate::home::apps::{AppFolder, Apps};
use crate::home::leave;
use crate::home::lock::{Holder, Lock, LockError};

/// What an app has in the home folder.
#[derive(Debug)]
pub(super) struct Place {
    folder: Option<AppFolder>,
    lock: Option<Lock>,
}

/// Takes the lock of each app.
///
/// # Errors
/// Somebody runs one of them; none is held then.
pub(super) fn take<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Place>, LockError> {
    let apps = Apps::of_this_process().ok();
    let place = |name| {
        let folder = apps.as_ref().map(|apps| apps.app(name));
        let mut place = Place { folder, lock: None };
        place.lock = place.lock()?;
        match &mut place.lock {
            Some(lock) => drop(lock.say(&Holder::this_process())),
            None => place.folder = None,
        }
        Ok(place)
    };
    names.map(place).collect()
}

impl Place {
    /// The folder and its lock, for a primary; `None` if there are none.
    ///
    /// # Errors
    /// Somebody else has taken the lock after the primary before had ended.
    pub(super) fn for_primary(&mut self) -> Result<Option<(&AppFolder, Lock)>, LockError> {
        let lock = match self.lock.take() {
            Some(lock) => Some(lock),
            None => self.lock()?,
        };
        Ok(self.folder.as_ref().zip(lock))
    }

    /// Whether the app is one that was started in the background, too.
    pub(super) fn is_defined(&self) -> bool {
        self.folder.as_ref().is_some_and(AppFolder::is_defined)
    }

    fn lock(&self) -> Result<Option<Lock>, LockError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        match Lock::take(folder) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Unusable { .. }) => Ok(None),
            Err(held) => Err(held),
        }
    }
}

/// A primary leaves nothing, unless it was killed or never started.
impl Drop for Place {
    fn drop(&mut self) {
        let Some(folder) = &self.folder else { return };
        let lock = self.lock.take().or_else(|| folder.lock().exists().then(|| Lock::take(folder).ok())?);
        if let Some(lock) = lock {
            leave(folder, &lock);
        }
    }
}
