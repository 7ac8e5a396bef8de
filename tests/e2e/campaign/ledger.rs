//! The ledger: of every request, which process noted it, what its client got, and which processes were killed meanwhile.
//!
//! Workers note a request before they answer it, each in a file of its own that is named by its process number; a line is
//! `ID PID`. It judges only what was written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

/// What a client asked, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: String,
    /// The client's address; `None` if it could not connect.
    pub(super) client: Option<SocketAddr>,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) outcome: Outcome,
}

/// How an exchange has ended for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This process has answered.
    Answered(i32),
    /// The client did not wait for an answer.
    Left,
    /// There was none, for this reason.
    Lost(String),
}

/// The end of a worker that was killed.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) pid: i32,
    pub(super) at: Instant,
    /// The clients of the connections that it held.
    pub(super) taken: BTreeSet<SocketAddr>,
}

/// What all processes noted: the processes by the id of the request, in no order.
pub(super) type Notes = BTreeMap<String, Vec<i32>>;

/// Reads the files of a folder.
pub(super) fn read(folder: &Path) -> io::Result<Notes> {
    let mut notes = Notes::new();
    for file in fs::read_dir(folder)? {
        for line in fs::read_to_string(file?.path())?.lines() {
            let noted = line.split_once(' ').and_then(|(id, pid)| Some((id.to_owned(), pid.parse().ok()?)));
            let (id, pid) = noted.unwrap_or_else(|| panic!("not a line of a ledger: {line:?}"));
            notes.entry(id).or_default().push(pid);
        }
    }
    Ok(notes)
}

/// Everything that is wrong, a sentence each.
pub(super) fn judge(requests: &[Request], kills: &[Kill], notes: &Notes) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, pids) in notes.iter().filter(|(_, pids)| pids.len() > 1) {
        wrong.push(format!("request {id} was served {} times, by {pids:?}", pids.len()));
    }
    for request in requests {
        let Request { id, client, outcome, .. } = request;
        let noted = notes.get(id).map_or(&[][..], Vec::as_slice);
        match outcome {
            Outcome::Answered(pid) if !noted.contains(pid) => {
                wrong.push(format!("request {id} was answered by {pid}, and noted by {noted:?}"));
            }
            Outcome::Lost(why) if !was_killed(request, kills, notes) => {
                wrong.push(format!(
                    "request {id} ({client:?}) was lost: {why}; noted by {noted:?}, and no kill explains it"
                ));
            }
            Outcome::Answered(_) | Outcome::Left | Outcome::Lost(_) => {}
        }
    }
    wrong
}

/// The requests that were lost, and with no worker that was killed.
pub(super) fn unexplained<'a>(requests: &'a [Request], kills: &[Kill], notes: &Notes) -> Vec<&'a Request> {
    let lost = requests.iter().filter(|request| matches!(request.outcome, Outcome::Lost(_)));
    lost.filter(|request| !was_killed(request, kills, notes)).collect()
}

/// Whether the request was lost with one of these.
fn was_killed(request: &Request, kills: &[Kill], notes: &Notes) -> bool {
    let noted = notes.get(&request.id).map_or(&[][..], Vec::as_slice);
    kills.iter().any(|kill| explains(kill, request, noted))
}

/// Whether the request was lost with this process: it held the connection, and nobody else had noted it.
fn explains(kill: &Kill, request: &Request, noted: &[i32]) -> bool {
    let is_meanwhile = request.begin <= kill.at && kill.at <= request.end;
    let held = request.client.is_some_and(|client| kill.taken.contains(&client));
    is_meanwhile && held && noted.iter().all(|&pid| pid == kill.pid)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_wrong_is_found_and_nothing_else() {
        let start = Instant::now();
        let client = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let at = |seconds| start + Duration::from_secs(seconds);
        let request = |id: &str, outcome| Request {
            id: id.to_owned(),
            client: Some(client(7)),
            begin: at(1),
            end: at(3),
            outcome,
        };
        let lost = || Outcome::Lost("reset".to_owned());
        let kill = |pid, seconds, taken: &[u16]| Kill {
            pid,
            at: at(seconds),
            taken: taken.iter().map(|&port| client(port)).collect(),
        };
        let notes = |lines: &[(&str, i32)]| {
            let mut notes = Notes::new();
            lines.iter().for_each(|&(id, pid)| notes.entry(id.to_owned()).or_default().push(pid));
            notes
        };
        let cases = [
            (request("a", Outcome::Answered(1)), vec![], notes(&[("a", 1)]), 0),
            (request("a", Outcome::Answered(1)), vec![], notes(&[("a", 2)]), 1),
            (request("a", Outcome::Answered(1)), vec![], notes(&[]), 1),
            (request("a", Outcome::Answered(1)), vec![], notes(&[("a", 1), ("a", 2)]), 1),
            (request("a", Outcome::Left), vec![], notes(&[]), 0),
            (request("a", Outcome::Left), vec![], notes(&[("a", 1)]), 0),
            (request("a", lost()), vec![], notes(&[]), 1),
            (request("a", lost()), vec![kill(1, 2, &[7])], notes(&[]), 0),
            (request("a", lost()), vec![kill(1, 2, &[7])], notes(&[("a", 1)]), 0),
            (request("a", lost()), vec![kill(1, 2, &[7])], notes(&[("a", 2)]), 1),
            (request("a", lost()), vec![kill(1, 2, &[8])], notes(&[("a", 1)]), 1),
            (request("a", lost()), vec![kill(1, 4, &[7])], notes(&[]), 1),
            (request("a", lost()), vec![kill(1, 0, &[7])], notes(&[]), 1),
        ];
        for (request, kills, notes, expected) in cases {
            let wrong = judge(std::slice::from_ref(&request), &kills, &notes);
            assert_eq!(wrong.len(), expected, "{request:?} {kills:?} {notes:?}: {wrong:?}");
        }
    }
}
