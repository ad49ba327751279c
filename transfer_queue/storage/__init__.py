"""Where values lie.

`memory`: in the controller's process; they travel inside the messages.
`arena` (over the pure `extents`, in files made by `segment_file`) and `reader` (into `buffers`): in files that the
producers and consumers of one machine map; `run_folder` says where those are and sees that they go with the run.
"""
