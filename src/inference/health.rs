//! Tracks whether a network's sessions work, and tells their faults from bad input.
//!
//! ONNX Runtime uses the same code for an image that a graph cannot take and for a GPU that fell off
//! the bus. A probe tells them apart: a batch that ran before runs again on the session that failed. If
//! the probe succeeds, the input was at fault, so bad images can never mark a network as broken. If it
//! fails, the session is at fault: the fault is counted and the session is recreated. After several
//! faults in a row without a good run in between, the network is broken: it gets no requests until an
//! attempt to [mend](Health::mend) it succeeds.

use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::sessions::{Sessions, Taken};
use crate::error::{Error, ErrorKind, Result};

/// Session faults in a row after which a network is broken.
const MOST_FAULTS: usize = 3;

/// The number of broken networks in the process. Health checks read it without blocking.
#[derive(Debug, Clone, Default)]
pub struct BrokenNetworks(Arc<AtomicIsize>);

impl BrokenNetworks {
    /// Whether any network is broken.
    pub fn any(&self) -> bool {
        // A network mended at the moment it breaks may be counted down before it is counted up.
        self.0.load(Ordering::Acquire) > 0
    }

    /// Counts one more, when a network breaks.
    pub fn count_up(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one less, when a broken network is mended or unloaded.
    pub fn count_down(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Fault state of one network's sessions.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Faults in a row.
    faults: AtomicUsize,
    broken: BrokenNetworks,
    /// Held during a probe, so that only one runs at a time.
    probing: Mutex<()>,
}

/// What was at fault for a failed run.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The input to the network.
    Input,
    /// Nothing lasting: there is no memory for the probe either.
    Memory(Error),
    /// The sessions, which were recreated as far as possible.
    Sessions,
}

/// Runs a batch that ran before. Fails with [`ErrorKind::OutOfMemory`] if there is no memory for it.
pub(super) type Probe<'p, L> = &'p dyn Fn(&mut L) -> Result<()>;

impl Health {
    /// Creates the state of a network that counts itself in `broken` while it is broken.
    pub fn counted_in(broken: BrokenNetworks) -> Self {
        Self { faults: AtomicUsize::new(0), broken, probing: Mutex::new(()) }
    }

    /// Whether several faults occurred in a row without a good run.
    pub fn is_broken(&self) -> bool {
        self.faults.load(Ordering::Acquire) >= MOST_FAULTS
    }

    /// Records a good run.
    pub fn good(&self) {
        if self.faults.load(Ordering::Acquire) == 0 {
            return;
        }
        if self.faults.swap(0, Ordering::AcqRel) >= MOST_FAULTS {
            self.broken.count_down();
            tracing::info!("a network that was broken works again");
        }
    }

    /// Records a fault of a session.
    fn fault(&self, cause: &Error) {
        let faults = self.faults.fetch_add(1, Ordering::AcqRel) + 1;
        let causes = crate::error::chain(cause);
        tracing::error!(faults, causes, "a session of a network is at fault");
        if faults == MOST_FAULTS {
            self.broken.count_up();
            tracing::error!(faults, "a network is broken: new sessions do not help");
        }
    }

    /// Determines what was at fault for a run that failed in a session of one of `pools`. That session
    /// was returned to its pool as a suspect. Faulty sessions are recreated.
    pub fn judge<L>(&self, pools: &[&Sessions<L>], probe: Probe<L>) -> Verdict {
        let _one_at_a_time = self.probing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = None;
        for pool in pools {
            let lost = pool.is_lost();
            while let Some(suspect) = pool.take_suspect() {
                match self.examine(suspect, probe) {
                    Verdict::Input => verdict = verdict.or(Some(Verdict::Input)),
                    // The session may be fine; it stays a suspect until there is memory to find out.
                    Verdict::Memory(e) => return Verdict::Memory(e),
                    Verdict::Sessions => verdict = Some(Verdict::Sessions),
                }
            }
            if lost {
                match self.examine_new(pool, probe) {
                    Verdict::Memory(e) => return Verdict::Memory(e),
                    _ => verdict = Some(Verdict::Sessions),
                }
            }
        }
        match (verdict, pools.first()) {
            (Some(verdict), _) => verdict,
            // Another request has taken the suspect in the meantime, or has already probed it.
            (None, Some(pool)) => self.examine_new(pool, probe),
            (None, None) => Verdict::Sessions,
        }
    }

    /// Probes a session and, if that fails, its replacement.
    fn examine<L>(&self, mut session: Taken<L>, probe: Probe<L>) -> Verdict {
        // On a panic, too, the session returns to the pool as a suspect.
        session.suspect(true);
        match session.session().and_then(probe) {
            Ok(()) => {
                session.suspect(false);
                return Verdict::Input;
            }
            Err(e) if e.kind() == ErrorKind::OutOfMemory => return Verdict::Memory(e),
            Err(e) => self.fault(&e),
        }
        if let Err(e) = session.renew() {
            return self.at_fault(e);
        }
        match session.session().and_then(probe) {
            Ok(()) => {
                tracing::warn!("a network session was recreated");
                Verdict::Sessions
            }
            Err(e) => {
                session.discard();
                self.at_fault(e)
            }
        }
    }

    /// Probes any available session of a pool.
    fn examine_new<L>(&self, pool: &Sessions<L>, probe: Probe<L>) -> Verdict {
        match pool.take() {
            Ok(session) => self.examine(session, probe),
            Err(e) => self.at_fault(e),
        }
    }

    fn at_fault(&self, e: Error) -> Verdict {
        if e.kind() == ErrorKind::OutOfMemory {
            return Verdict::Memory(e);
        }
        self.fault(&e);
        Verdict::Sessions
    }

    /// Recreates the sessions of a broken network and probes one of each pool. The network works again
    /// if all probes succeed. Does nothing if the network is not broken, or while another thread
    /// probes.
    pub fn mend<L>(&self, pools: &[&Sessions<L>], probe: Probe<L>) {
        let _one_at_a_time = match self.probing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !self.is_broken() {
            return;
        }
        for pool in pools {
            pool.drop_idle();
            let tried = pool.take().and_then(|mut session| {
                session.suspect(true);
                session.session().and_then(probe)?;
                session.suspect(false);
                Ok(())
            });
            if let Err(e) = tried {
                tracing::warn!(causes = crate::error::chain(&e), "a network is still broken");
                return;
            }
        }
        self.good();
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.is_broken() {
            self.broken.count_down();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripted behaviour of the sessions in a test, by their order of creation.
    #[derive(Default)]
    struct Script {
        /// Sessions that cannot be created.
        unmade: Vec<usize>,
        /// Sessions whose probes fail.
        failing: Vec<usize>,
        /// Sessions whose probes run out of memory.
        starving: Vec<usize>,
        made: AtomicUsize,
        probes: AtomicUsize,
    }

    struct Double {
        number: usize,
        script: Arc<Mutex<Script>>,
    }

    fn probe(double: &mut Double) -> Result<()> {
        let script = double.script.lock().unwrap();
        script.probes.fetch_add(1, Ordering::SeqCst);
        if script.starving.contains(&double.number) {
            return Err(Error::new(ErrorKind::OutOfMemory, "no memory"));
        }
        match script.failing.contains(&double.number) {
            true => Err(Error::new(ErrorKind::InferenceFailed, "the device is gone")),
            false => Ok(()),
        }
    }

    struct Bench {
        health: Health,
        broken: BrokenNetworks,
        sessions: Sessions<Double>,
        script: Arc<Mutex<Script>>,
    }

    impl Bench {
        fn of(most: usize, script: Script) -> Self {
            let script = Arc::new(Mutex::new(script));
            let given = Arc::clone(&script);
            let make = move |_| {
                let number = given.lock().unwrap().made.fetch_add(1, Ordering::SeqCst);
                if given.lock().unwrap().unmade.contains(&number) {
                    return Err(Error::new(ErrorKind::Configuration, "no device"));
                }
                Ok(Double { number, script: Arc::clone(&given) })
            };
            let broken = BrokenNetworks::default();
            Self {
                health: Health::counted_in(broken.clone()),
                broken,
                sessions: Sessions::new(None, most, Box::new(make)),
                script,
            }
        }

        /// Simulates a failed run and returns the verdict.
        fn fail(&self) -> Verdict {
            if let Ok(mut taken) = self.sessions.take() {
                taken.suspect(true);
            }
            self.health.judge(&[&self.sessions], &probe)
        }

        /// Simulates a good run and returns the number of its session.
        fn run(&self) -> usize {
            let mut taken = self.sessions.take().unwrap();
            self.health.good();
            taken.suspect(false);
            taken.session().unwrap().number
        }

        fn probes(&self) -> usize {
            self.script.lock().unwrap().probes.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn inputs_at_fault_never_break_a_network() {
        let bench = Bench::of(1, Script::default());
        for _ in 0..20 {
            assert!(matches!(bench.fail(), Verdict::Input));
            assert!(!bench.health.is_broken() && !bench.broken.any());
        }
        assert_eq!(bench.probes(), 20, "one for each run that failed");
        assert_eq!(bench.run(), 0, "the session stays");
    }

    #[test]
    fn a_session_at_fault_is_made_anew() {
        let bench = Bench::of(1, Script { failing: vec![0], ..Script::default() });
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(!bench.health.is_broken());
        assert_eq!(bench.run(), 1);
        assert!(matches!(bench.fail(), Verdict::Input));
    }

    #[test]
    fn faults_in_a_row_break_it_and_a_good_run_starts_the_count_again() {
        let failing = vec![0, 1, 2, 3, 4, 5];
        let bench = Bench::of(1, Script { failing, ..Script::default() });
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(!bench.health.is_broken(), "two faults: the session, and the one in its place");
        bench.health.good();
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(!bench.health.is_broken());
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(bench.health.is_broken() && bench.broken.any());
        // From the seventh on, sessions work.
        bench.health.mend(&[&bench.sessions], &probe);
        assert!(!bench.health.is_broken() && !bench.broken.any());
        assert_eq!(bench.run(), 6);
    }

    #[test]
    fn sessions_that_cannot_be_made_break_it_too() {
        let script = Script { failing: vec![0], unmade: vec![1, 2, 3, 4], ..Script::default() };
        let bench = Bench::of(1, script);
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(matches!(bench.fail(), Verdict::Sessions));
        assert!(bench.health.is_broken() && bench.broken.any());
        bench.health.mend(&[&bench.sessions], &probe);
        assert!(bench.health.is_broken());
        bench.health.mend(&[&bench.sessions], &probe);
        assert!(!bench.health.is_broken() && !bench.broken.any());
    }

    #[test]
    fn sessions_that_work_do_the_work_of_those_that_cannot_be_mended() {
        let script = Script { failing: vec![0, 2], ..Script::default() };
        let bench = Bench::of(2, script);
        let (mut first, second) = (bench.sessions.take().unwrap(), bench.sessions.take().unwrap());
        first.suspect(true);
        drop((first, second));
        assert!(matches!(bench.health.judge(&[&bench.sessions], &probe), Verdict::Sessions));
        assert_eq!([bench.run(), bench.run()], [1, 1], "no third is made");
    }

    #[test]
    fn every_suspect_is_probed_once() {
        let bench = Bench::of(3, Script { failing: vec![1], ..Script::default() });
        let taken: Vec<_> = (0..3)
            .map(|_| {
                let mut taken = bench.sessions.take().unwrap();
                taken.suspect(true);
                taken
            })
            .collect();
        drop(taken);
        assert!(matches!(bench.health.judge(&[&bench.sessions], &probe), Verdict::Sessions));
        assert_eq!(bench.probes(), 4, "three suspects, and the new one in place of one");
        assert!(bench.sessions.take_suspect().is_none());
    }

    #[test]
    fn want_of_memory_is_no_fault() {
        let bench = Bench::of(1, Script { starving: vec![0], ..Script::default() });
        for _ in 0..9 {
            assert!(matches!(bench.fail(), Verdict::Memory(_)));
        }
        assert!(!bench.health.is_broken());
        assert_eq!(bench.run(), 0);
    }

    #[test]
    fn probes_come_one_at_a_time() {
        let bench = Bench::of(4, Script::default());
        let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let slow = |_: &mut Double| {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(2));
            at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    bench.sessions.take().unwrap().suspect(true);
                    let verdict = bench.health.judge(&[&bench.sessions], &slow);
                    assert!(matches!(verdict, Verdict::Input));
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn a_broken_network_that_is_unloaded_counts_no_more() {
        let bench = Bench::of(1, Script { failing: vec![0, 1, 2, 3], ..Script::default() });
        bench.fail();
        bench.fail();
        assert!(bench.broken.any());
        let broken = bench.broken.clone();
        drop(bench);
        assert!(!broken.any());
    }
}
