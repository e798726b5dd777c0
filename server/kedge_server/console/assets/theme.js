// Before anything is drawn: what the viewer chose, else what the system says.
const chosen = localStorage.getItem("kedge-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
