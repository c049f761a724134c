//! Client connections: their limit, the order of eviction, and the reserve for health probes.
//!
//! A connection either has a request in progress or waits for its client: for the headers of a
//! request, for its body, or for the next request. At the connection limit, the connection that has
//! waited longest is evicted for a new one. If none is waiting, new connections go into a reserve
//! in which only probes are served.

mod attend;
mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use attend::serve;

use super::context::Context;
use super::{METRICS, PING, status};
use crate::config::{ConnectionSettings, PROBE_CONNECTIONS};
use crate::error::{Error, ErrorKind};

/// Time after which a connection with a stalled request body may be evicted.
const STALLED: Duration = Duration::from_secs(1);

/// A connection younger than this that has not sent a request yet is evicted only as a last resort.
const YOUNG: Duration = Duration::from_millis(500);

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The headers of a request are incomplete or have not arrived.
    Heading,
    /// The last request was answered, and no other has started.
    Idle,
    /// A request or its response is in progress.
    Busy,
}

/// Why a connection was closed or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its headers timed out.
    Headers,
    /// It was idle for too long.
    Idle,
    /// It was evicted for another connection.
    Bound,
    /// There was no free slot.
    Refused,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Headers, Self::Idle, Self::Bound, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Idle => "idle",
            Self::Bound => "bound",
            Self::Refused => "refused",
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Connection {
    id: u64,
    born: Instant,
    /// The start of the phase in milliseconds since `born`; the lowest two bits hold the phase.
    state: AtomicU64,
    /// Number of requests so far.
    requests: AtomicU64,
    /// Whether a response is blocked on a client that does not read.
    blocked: AtomicBool,
    /// Milliseconds since `born`, plus 1, at which the server began to wait for a body that has
    /// made no progress since; 0 if it waits for none.
    awaited: AtomicU64,
    /// Notified on eviction.
    evicted: Notify,
}

impl Connection {
    /// Milliseconds since `born`.
    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis())
            .map_or(u64::MAX >> 2, |ms| ms.min(u64::MAX >> 2))
    }

    fn enter(&self, phase: Phase) {
        self.state.store(self.age() << 2 | phase as u64, Ordering::Release);
    }

    /// Records that the server waits for more of a body.
    fn awaits_body(&self) {
        let since = self.age() + 1;
        // Keeps the earlier time if it is already waiting.
        let _ = self.awaited.compare_exchange(0, since, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Records that a body made progress or is no longer awaited.
    fn has_body(&self) {
        self.awaited.store(0, Ordering::Release);
    }

    /// Returns since when the server has waited for a body that makes no progress.
    fn stalled_since(&self) -> Option<Instant> {
        let since = self.awaited.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.born + Duration::from_millis(since))
    }

    /// Returns the phase and when it began.
    fn phase(&self) -> (Phase, Instant) {
        let state = self.state.load(Ordering::Acquire);
        let phase = match state & 3 {
            0 => Phase::Heading,
            1 if !self.blocked.load(Ordering::Acquire) => Phase::Idle,
            _ => Phase::Busy,
        };
        (phase, self.born + Duration::from_millis(state >> 2))
    }

    /// Records that bytes arrived from the client.
    fn heard(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Heading);
        }
    }

    /// Records that response bytes were sent or are blocked. The end of a response may still be in
    /// flight after its body is dropped.
    fn told(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }
}

/// The class a connection is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Within the connection limit.
    Ordinary,
    /// Beyond the limit, for probes only.
    Reserve,
    /// Evicted, but not closed yet.
    Leaving,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, (Class, Arc<Connection>)>,
    counts: [usize; 3],
    next: u64,
}

impl Table {
    fn count(&self, class: Class) -> usize {
        self.counts[class as usize]
    }

    fn insert(&mut self, class: Class, connection: Arc<Connection>) {
        self.counts[class as usize] += 1;
        self.open.insert(connection.id, (class, connection));
    }

    fn remove(&mut self, id: u64) {
        if let Some((class, _)) = self.open.remove(&id) {
            self.counts[class as usize] -= 1;
        }
    }

    fn change(&mut self, id: u64, class: Class) -> Option<&Connection> {
        let (was, connection) = self.open.get_mut(&id)?;
        self.counts[*was as usize] -= 1;
        self.counts[class as usize] += 1;
        *was = class;
        Some(connection)
    }

    /// Evicts the most expendable connection of a class; returns whether there was one.
    fn evict(&mut self, class: Class, now: Instant) -> bool {
        let waiting = self.open.iter().filter(|(_, (c, _))| *c == class);
        let rated = waiting.filter_map(|(id, (_, connection))| {
            let (phase, since) = connection.phase();
            let is_over = |since, age| now.saturating_duration_since(since) >= age;
            let rating = match (phase, connection.stalled_since()) {
                (Phase::Heading, _) if is_over(since, YOUNG) => (0, since),
                (Phase::Idle, _) => (1, since),
                (Phase::Busy, Some(stalled)) if is_over(stalled, STALLED) => (2, stalled),
                (Phase::Heading, _) => (3, since),
                (Phase::Busy, _) => return None,
            };
            Some((rating, *id))
        });
        let Some((_, id)) = rated.min() else { return false };
        if let Some(connection) = self.change(id, Class::Leaving) {
            connection.evicted.notify_one();
        }
        true
    }
}

/// All open connections.
#[derive(Debug)]
pub struct Connections {
    settings: ConnectionSettings,
    table: Mutex<Table>,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Connections {
    /// Creates an empty set with the limits of `settings`.
    pub fn new(settings: ConnectionSettings) -> Arc<Self> {
        Arc::new(Self { settings, table: Mutex::default(), endings: Default::default() })
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.table().open.len()
    }

    /// Returns the connection limit, without the reserve for probes.
    pub fn most(&self) -> usize {
        self.settings.most
    }

    /// Returns the number of connections closed by a timeout or by the limit, per reason.
    pub fn endings(&self) -> Vec<(&'static str, u64)> {
        let count = |ending: &Ending| self.endings[*ending as usize].load(Ordering::Relaxed);
        Ending::ALL.iter().map(|ending| (ending.name(), count(ending))).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Admits a new connection, evicting another one if necessary.
    fn admit(self: &Arc<Self>) -> Option<Entry> {
        let mut table = self.table();
        let now = Instant::now();
        let full = table.count(Class::Ordinary) >= self.settings.most;
        let class = if !full || table.evict(Class::Ordinary, now) {
            Class::Ordinary
        } else if table.count(Class::Reserve) < PROBE_CONNECTIONS
            || table.evict(Class::Reserve, now)
        {
            Class::Reserve
        } else {
            drop(table);
            self.ended(Ending::Refused);
            return None;
        };
        let id = table.next;
        table.next += 1;
        let connection = Arc::new(Connection {
            id,
            born: now,
            state: AtomicU64::new(Phase::Heading as u64),
            requests: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            awaited: AtomicU64::new(0),
            evicted: Notify::new(),
        });
        table.insert(class, Arc::clone(&connection));
        Some(Entry { connections: Arc::clone(self), connection })
    }

    /// Whether so many evicted connections are still open that new ones have to wait.
    fn is_behind(&self) -> bool {
        self.table().count(Class::Leaving) >= PROBE_CONNECTIONS
    }

    /// Evicts the most expendable connection, because the process has run out of file descriptors.
    fn make_room(&self) {
        self.table().evict(Class::Ordinary, Instant::now());
    }

    /// Whether the connection serves only probes. A connection in the reserve becomes an ordinary
    /// one as soon as there is a free slot.
    fn is_in_reserve(&self, connection: &Connection) -> bool {
        let mut table = self.table();
        let full = table.count(Class::Ordinary) >= self.settings.most;
        let class = table.open.get(&connection.id).map(|(class, _)| *class);
        if class == Some(Class::Reserve) && !full {
            table.change(connection.id, Class::Ordinary);
            return false;
        }
        class == Some(Class::Reserve)
    }
}

/// The slot of a connection, released on drop.
struct Entry {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().remove(self.connection.id);
    }
}

/// Marks a request on a connection in the reserve.
#[derive(Debug, Clone, Copy)]
struct Reserved {
    most: usize,
}

/// Rejects requests other than probes on a connection in the reserve, and closes it after the
/// response.
pub(super) async fn only_probes(request: Request, next: Next) -> Response {
    let Some(Reserved { most }) = request.extensions().get().copied() else {
        return next.run(request).await;
    };
    let path = request.uri().path();
    let probe = (path == PING || path == METRICS)
        && (request.method() == Method::GET || request.method() == Method::HEAD);
    let mut response = if probe {
        next.run(request).await
    } else {
        let error = Error::new(
            ErrorKind::Overloaded,
            format!(
                "the limit of {most} connections is reached (MAX_CONNECTIONS); send this \
                 request again later"
            ),
        );
        let context = request.extensions().get::<Context>();
        status::respond(&error.with("connections", most), context.map_or("", |c| &c.request_id))
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(most: usize) -> Arc<Connections> {
        Connections::new(ConnectionSettings { most, ..ConnectionSettings::default() })
    }

    fn class(connections: &Connections, entry: &Entry) -> Class {
        connections.table().open[&entry.connection.id].0
    }

    #[test]
    fn who_waits_longest_makes_room() {
        let connections = connections(3);
        let all: Vec<Entry> = (0..3).map(|_| connections.admit().unwrap()).collect();
        all[0].connection.enter(Phase::Busy);
        std::thread::sleep(Duration::from_millis(5));
        all[1].connection.enter(Phase::Idle);
        // An idle connection is evicted before a new one.
        let fourth = connections.admit().unwrap();
        assert_eq!(class(&connections, &all[1]), Class::Leaving);
        let fifth = connections.admit().unwrap();
        assert_eq!(class(&connections, &all[2]), Class::Leaving);
        assert_eq!(class(&connections, &all[0]), Class::Ordinary);
        assert_eq!(connections.open(), 5, "until they have left");
        drop(all);
        assert_eq!(connections.open(), 2);
        drop((fourth, fifth));
        assert_eq!(connections.open(), 0);
    }

    #[test]
    fn where_all_are_busy_there_is_a_reserve() {
        let connections = connections(2);
        let busy = || {
            let entry = connections.admit().unwrap();
            entry.connection.enter(Phase::Busy);
            entry
        };
        let mut ordinary = vec![busy(), busy()];
        let reserve: Vec<Entry> = (0..PROBE_CONNECTIONS).map(|_| busy()).collect();
        assert!(reserve.iter().all(|e| class(&connections, e) == Class::Reserve));
        assert!(connections.admit().is_none());
        assert_eq!(connections.endings()[Ending::Refused as usize], ("refused", 1));
        // The reserve evicts waiting connections, too; a body that has only just stalled does not
        // count.
        reserve[8].connection.awaits_body();
        assert!(connections.admit().is_none());
        reserve[7].connection.enter(Phase::Idle);
        let next = connections.admit().unwrap();
        assert_eq!(class(&connections, &reserve[7]), Class::Leaving);
        assert!(connections.is_in_reserve(&next.connection));
        std::thread::sleep(STALLED + Duration::from_millis(20));
        ordinary[0].connection.awaits_body();
        reserve[9].connection.awaits_body();
        reserve[9].connection.has_body();
        next.connection.enter(Phase::Busy);
        let _another = connections.admit().unwrap();
        assert_eq!(class(&connections, &reserve[8]), Class::Leaving);
        assert!(connections.is_in_reserve(&next.connection));
        ordinary.pop();
        assert!(!connections.is_in_reserve(&next.connection));
        assert_eq!(class(&connections, &next), Class::Ordinary);
    }
}
