//! Things in numbered places: a number is as good as a reference, and is used again when its place is free.
//!
//! It gives no hint that a number is outdated: whoever keeps one forgets it with the thing.

/// Things by number.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// The number that the next thing gets.
    pub(super) fn next_key(&self) -> usize {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    pub(super) fn insert(&mut self, thing: T) -> usize {
        let Some(key) = self.free.pop() else {
            self.places.push(Some(thing));
            return self.places.len() - 1;
        };
        self.places[key] = Some(thing);
        key
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<T> {
        let thing = self.places.get_mut(key)?.take()?;
        self.free.push(key);
        Some(thing)
    }

    pub(super) fn get(&self, key: usize) -> Option<&T> {
        self.places.get(key)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.places.get_mut(key)?.as_mut()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = usize> {
        self.places.iter().enumerate().filter(|(_, place)| place.is_some()).map(|(key, _)| key)
    }
}
