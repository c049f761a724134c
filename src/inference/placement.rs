//! Which execution provider runs each node of a session's graph, as ONNX Runtime records it.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char};
use std::ptr;

use ort::AsPointer;
use ort::session::Session;
use ort::sys;

/// The entry of a session's configuration without which nothing is recorded
/// (onnxruntime_session_options_config_keys.h).
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// Nodes by provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// How many nodes each provider runs; one that fuses nodes counts them all.
    pub nodes: BTreeMap<String, usize>,
    /// The kinds of operators that are left to the CPU.
    pub on_cpu: BTreeSet<String>,
}

/// The placement of a session made with [`RECORD`]; `None` where ONNX Runtime does not tell.
pub(super) fn of(session: &Session) -> Option<Placement> {
    let api = ort::api();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive for the call, which writes a pointer and a length.
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
        // SAFETY: a subgraph of a session that is alive; the call writes one pointer.
        checked(unsafe { (api.EpAssignedSubgraph_GetEpName)(subgraph, &raw mut name) })?;
        // SAFETY: the name belongs to the session and ends with a zero.
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
            // SAFETY: a node of a session that is alive; the call writes one pointer.
            checked(unsafe { (api.EpAssignedNode_GetOperatorType)(node, &raw mut operator) })?;
            // SAFETY: the text belongs to the session and ends with a zero.
            placement.on_cpu.extend(unsafe { text(operator) });
        }
    }
    Some(placement)
}

/// Releases a status; `None` where it is a failure.
fn checked(status: sys::OrtStatusPtr) -> Option<()> {
    if status.0.is_null() {
        return Some(());
    }
    // SAFETY: a status that is not null is an owned one, released once, here.
    unsafe { (ort::api().ReleaseStatus)(status.0) };
    None
}

/// # Safety
/// `first` points to `count` values that outlive `'a`, or `count` is 0.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: by the promise of the caller.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// # Safety
/// `text` is null or ends with a zero.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the promise of the caller.
    unsafe { CStr::from_ptr(text) }.to_str().ok().map(str::to_owned)
}
