//! temporary
use crate::protocol::native::Holder;
#[derive(Debug)]
pub struct Named {
    pub pid: i32,
    pub name: String,
}
impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}
pub async fn is_held(_: Holder) -> bool {
    true
}
pub async fn open_connections(_: &[u16]) -> usize {
    0
}
pub fn listener_of(_: u16) -> Option<Named> {
    None
}
