//! MONAI's preprocessing, each transform with the record that inverts it.
