//! Whether a network's sessions work, or its input was at fault.
//!
//! ONNX Runtime has one code for an image that a graph cannot take and for a GPU that fell off the bus.
//! What tells them apart is a probe: a batch that ran before runs again on the session that failed. If
//! it does, the input was at fault, and no sender of bad images can make a network count as broken. If
//! it does not, the session is at fault: it is counted and made anew. Where that happens several times
//! in a row without a good run in between, the network is broken: nothing is asked of it until an
//! attempt to [mend](Health::mend) it succeeds.

use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::sessions::{Sessions, Taken};
use crate::error::{Error, ErrorKind, Result};

/// Faults of sessions in a row after which a network is broken.
const MOST_FAULTS: usize = 3;

/// How many networks of the process are broken, for whoever answers for its health: read without
/// waiting for anything.
#[derive(Debug, Clone, Default)]
pub struct BrokenNetworks(Arc<AtomicIsize>);

impl BrokenNetworks {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        // One that is mended at the moment it breaks may be counted down before it is counted up.
        self.0.load(Ordering::Acquire) > 0
    }

    /// Counts one more, as one that breaks does.
    pub fn count_up(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one less, as one that is mended or unloaded does.
    pub fn count_down(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The faults of one network's sessions.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// In a row.
    faults: AtomicUsize,
    broken: BrokenNetworks,
    /// Held by whoever probes: one at a time.
    probing: Mutex<()>,
}

/// What was at fault for a run that failed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// What was given to the network.
    Input,
    /// Nothing lasting: there is no memory for the probe either.
    Memory(Error),
    /// The sessions, which were made anew as far as that went.
    Sessions,
}

/// Runs a batch that ran before; [`ErrorKind::OutOfMemory`] where there is no memory for it.
pub(super) type Probe<'p, L> = &'p dyn Fn(&mut L) -> Result<()>;

impl Health {
    /// Of a network that is counted in `broken` while it is.
    pub fn counted_in(broken: BrokenNetworks) -> Self {
        Self { faults: AtomicUsize::new(0), broken, probing: Mutex::new(()) }
    }

    /// Whether several faults followed one another without a good run.
    pub fn is_broken(&self) -> bool {
        self.faults.load(Ordering::Acquire) >= MOST_FAULTS
    }

    /// Notes a run that went well.
    pub fn good(&self) {
        if self.faults.load(Ordering::Acquire) == 0 {
            return;
        }
        if self.faults.swap(0, Ordering::AcqRel) >= MOST_FAULTS {
            self.broken.count_down();
            tracing::info!("a network that was broken works again");
        }
    }

    /// Notes a fault of a session.
    fn fault(&self, cause: &Error) {
        let faults = self.faults.fetch_add(1, Ordering::AcqRel) + 1;
        let causes = crate::error::chain(cause);
        tracing::error!(faults, causes, "a session of a network is at fault");
        if faults == MOST_FAULTS {
            self.broken.count_up();
            tracing::error!(faults, "a network is broken: new sessions do not help");
        }
    }

    /// Says what was at fault for a run that failed in a session of one of `pools`, which was given
    /// back as a suspect, and puts sessions that are at fault in order.
    pub fn judge<L>(&self, pools: &[&Sessions<L>], probe: Probe<L>) -> Verdict {
        let _one_at_a_time = self.probing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = None;
        for pool in pools {
            let lost = pool.is_lost();
            while let Some(suspect) = pool.take_suspect() {
                match self.examine(suspect, probe) {
                    Verdict::Input => verdict = verdict.or(Some(Verdict::Input)),
                    // It may be well; it stays a suspect until there is memory to find out.
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
            // Another request has taken the suspect since, or found out about it.
            (None, Some(pool)) => self.examine_new(pool, probe),
            (None, None) => Verdict::Sessions,
        }
    }

    /// Probes a session, and what is made in its place where it fails.
    fn examine<L>(&self, mut session: Taken<L>, probe: Probe<L>) -> Verdict {
        // In a panic, too, it goes back as a suspect.
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
                tracing::warn!("a session of a network was made anew");
                Verdict::Sessions
            }
            Err(e) => {
                session.discard();
                self.at_fault(e)
            }
        }
    }

    /// Probes whichever session is to be had of a pool.
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

    /// Where the network is broken, makes sessions anew and probes one of each pool; it works again if
    /// all of them do. Does nothing while somebody else probes.
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

    /// What the sessions of a test do, by the number they have in the order they are made.
    #[derive(Default)]
    struct Script {
        /// Those that cannot be made.
        unmade: Vec<usize>,
        /// Those whose probes fail.
        failing: Vec<usize>,
        /// Those for whose probes there is no memory.
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

        /// A run that fails, and what is said of it.
        fn fail(&self) -> Verdict {
            if let Ok(mut taken) = self.sessions.take() {
                taken.suspect(true);
            }
            self.health.judge(&[&self.sessions], &probe)
        }

        /// A run that goes well, and the number of its session.
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
        // Sessions that work are there from the seventh on.
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
