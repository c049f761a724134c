//! Reads which execution provider runs each node of a session's graph, as recorded by ONNX Runtime.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char};
use std::ptr;

use ort::AsPointer;
use ort::session::Session;
use ort::sys;

/// The session configuration entry that enables recording (onnxruntime_session_options_config_keys.h).
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// Nodes by provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Number of nodes that each provider runs. For a provider that fuses nodes, all fused nodes count.
    pub nodes: BTreeMap<String, usize>,
    /// The kinds of operators left to the CPU.
    pub on_cpu: BTreeSet<String>,
}

/// Returns the placement of a session created with [`RECORD`]; `None` if ONNX Runtime does not report
/// it.
pub(super) fn of(session: &Session) -> Option<Placement> {
    let api = ort::api();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session outlives the call, which writes a pointer and a length.
    let status = unsafe {
        (api.Session_GetEpGraphAssignmentInfo)(
            session.inner().ptr(),
            &raw mut subgraphs,
            &raw mut count,
        )
    };
    checked(status)?;
    let mut placement = Placement::default();
    // SAFETY: on success there are `count` subgraphs, which the session owns.
    for &subgraph in unsafe { slice(subgraphs, count) } {
        let mut name = ptr::null();
        // SAFETY: the subgraph belongs to a live session; the call writes one pointer.
        checked(unsafe { (api.EpAssignedSubgraph_GetEpName)(subgraph, &raw mut name) })?;
        // SAFETY: the name is owned by the session and NUL-terminated.
        let provider = unsafe { text(name) }?;
        let (mut nodes, mut count) = (ptr::null(), 0);
        // SAFETY: as above, with a length.
        checked(unsafe {
            (api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut count)
        })?;
        *placement.nodes.entry(provider.clone()).or_default() += count;
        if provider != super::Provider::Cpu.name() {
            continue;
        }
        // SAFETY: on success there are `count` nodes, which the session owns.
        for &node in unsafe { slice(nodes, count) } {
            let mut operator = ptr::null();
            // SAFETY: the node belongs to a live session; the call writes one pointer.
            checked(unsafe { (api.EpAssignedNode_GetOperatorType)(node, &raw mut operator) })?;
            // SAFETY: the text is owned by the session and NUL-terminated.
            placement.on_cpu.extend(unsafe { text(operator) });
        }
    }
    Some(placement)
}

/// Releases a status; `None` if it is a failure.
fn checked(status: sys::OrtStatusPtr) -> Option<()> {
    if status.0.is_null() {
        return Some(());
    }
    // SAFETY: a non-null status is owned and is released once, here.
    unsafe { (ort::api().ReleaseStatus)(status.0) };
    None
}

/// # Safety
/// `first` points to `count` values that outlive `'a`, or `count` is 0.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller guarantees it.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(text) }.to_str().ok().map(str::to_owned)
}
