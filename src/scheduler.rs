//! Admission: bounded concurrency, a bounded queue, deadlines, cancellation.
