//! The connections of clients: how many there may be, which are closed first, and what is kept free
//! for health probes.
//!
//! A connection is either asked something or waits for its client: for the headers of a request, for its
//! body, or for the next one. Where there are as many connections as may be, the one that has waited longest
//! makes room for a new one. Where none waits, new ones come into a reserve, in which only probes
//! are answered.

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

/// Time for which a body that does not get on may lie before its connection may be closed for another.
const STALLED: Duration = Duration::from_secs(1);

/// Age below which a connection that has not asked anything yet is closed only if there is no other.
const YOUNG: Duration = Duration::from_millis(500);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The headers of a request have not come, or not all of them.
    Heading,
    /// The last request was answered, and no other has begun.
    Idle,
    /// A request is worked on or answered.
    Busy,
}

/// Why a connection was closed, or not even taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its headers did not come in time.
    Headers,
    /// It lay idle.
    Idle,
    /// It made room for another one.
    Bound,
    /// There was no room for it.
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
    /// Milliseconds since it was born at which the phase began, and in the lowest two bits the phase.
    state: AtomicU64,
    /// Requests so far.
    requests: AtomicU64,
    /// An answer waits for its client to read.
    blocked: AtomicBool,
    /// Milliseconds after its birth from which on a body was waited for that has not got on since, and 1;
    /// 0 where none is.
    awaited: AtomicU64,
    /// Told to make room.
    evicted: Notify,
}

impl Connection {
    /// Milliseconds since it was born.
    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis())
            .map_or(u64::MAX >> 2, |ms| ms.min(u64::MAX >> 2))
    }

    fn enter(&self, phase: Phase) {
        self.state.store(self.age() << 2 | phase as u64, Ordering::Release);
    }

    /// More of a body is waited for.
    fn awaits_body(&self) {
        let since = self.age() + 1;
        // One that is waited for already has been since then.
        let _ = self.awaited.compare_exchange(0, since, Ordering::AcqRel, Ordering::Acquire);
    }

    /// A body got on, or is waited for no more.
    fn has_body(&self) {
        self.awaited.store(0, Ordering::Release);
    }

    /// Since when a body has been waited for that does not get on.
    fn stalled_since(&self) -> Option<Instant> {
        let since = self.awaited.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.born + Duration::from_millis(since))
    }

    /// The phase, and when it began.
    fn phase(&self) -> (Phase, Instant) {
        let state = self.state.load(Ordering::Acquire);
        let phase = match state & 3 {
            0 => Phase::Heading,
            1 if !self.blocked.load(Ordering::Acquire) => Phase::Idle,
            _ => Phase::Busy,
        };
        (phase, self.born + Duration::from_millis(state >> 2))
    }

    /// Bytes came from the client.
    fn heard(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Heading);
        }
    }

    /// Bytes of an answer went to the client, or wait for it. The end of an answer may still be on its
    /// way when its body is gone.
    fn told(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }
}

/// What a connection counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// One of those there may be.
    Ordinary,
    /// One beyond, for probes.
    Reserve,
    /// One that was told to make room and is about to.
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

    /// Tells the connection of a class that is missed least to make room; whether there is one.
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

/// All connections there are.
#[derive(Debug)]
pub struct Connections {
    settings: ConnectionSettings,
    table: Mutex<Table>,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Connections {
    /// No connection yet, and as many as `settings` say.
    pub fn new(settings: ConnectionSettings) -> Arc<Self> {
        Arc::new(Self { settings, table: Mutex::default(), endings: Default::default() })
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.table().open.len()
    }

    /// How many there may be, without those for probes.
    pub fn most(&self) -> usize {
        self.settings.most
    }

    /// How many ended for want of time or room, by the reason.
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

    /// Takes a new connection, if need be in place of another one.
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

    /// Whether so many connections are about to make room that new ones have to wait for them.
    fn is_behind(&self) -> bool {
        self.table().count(Class::Leaving) >= PROBE_CONNECTIONS
    }

    /// Closes the connection that is missed least: the process has no file left.
    fn make_room(&self) {
        self.table().evict(Class::Ordinary, Instant::now());
    }

    /// Whether a request on the connection has to be one of a probe. One in the reserve leaves it as
    /// soon as there is room.
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

/// The place of a connection among all, given up when it is dropped.
struct Entry {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().remove(self.connection.id);
    }
}

/// Marks the request of a connection in the reserve.
#[derive(Debug, Clone, Copy)]
struct Reserved {
    most: usize,
}

/// Refuses what is no probe on a connection in the reserve, and closes that connection after its answer.
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
                "there are {most} connections, as many as may be (MAX_CONNECTIONS); send this \
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
        // One that has just come is spared for one that lies idle.
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
        // In the reserve, too, who waits makes room; a body that has just stalled does not count.
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
